"""A user study: an offline page on which people compare or rank pictures, and the tally of answers."""
