"""The paper's tables again: at small scale on a laptop, or on the paper's own data and models."""
