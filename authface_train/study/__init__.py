"""A user study: two methods side by side on one offline page, and the tally of its answers."""
