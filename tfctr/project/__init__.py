"""A first project for somebody's data: feature file, experiment and README, from what the first rows hold."""
