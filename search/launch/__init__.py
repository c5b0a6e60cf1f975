"""A study sent from here to a cluster's head, followed from here, and brought back: all through the dashboard's door."""
