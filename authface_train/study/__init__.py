"""A user study: two methods side by side in one offline page, and what its answers say."""
