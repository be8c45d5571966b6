"""Export: signatures, SavedModel directories, warm-up requests, the check against TF Serving's ops."""
