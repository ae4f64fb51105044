"""People who have the last word: faces out for review as a table or a page, decisions back in, and how far all agree."""
