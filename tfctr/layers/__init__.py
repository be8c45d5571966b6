"""Small Keras layers shared by interests, interactions and models."""
