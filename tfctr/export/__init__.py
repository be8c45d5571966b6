"""Export of SavedModels: signatures, warm-up requests, and the check of ops against TensorFlow Serving."""
