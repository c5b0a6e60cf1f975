"""A study sent from here to a cluster, followed from here and brought back: all through the dashboard's door."""
