"""The batch side: from a manifest to stored pictures, with Ray only in `driver/`."""
