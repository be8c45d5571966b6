"""What is deployed, and a server for development and tests."""
