"""An interaction log becomes impressions: histories, labels, splits and slices without a leak."""
