"""The TFX application: from a log of impressions to a pushed SavedModel."""
