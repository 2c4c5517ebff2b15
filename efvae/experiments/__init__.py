"""The paper's experiments: a frozen config in, a record out."""
