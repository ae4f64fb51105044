"""What a workspace holds, in words and in pictures."""
