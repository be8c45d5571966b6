"""Every block of commands or Python in README and docs runs here, in the order of its page."""
