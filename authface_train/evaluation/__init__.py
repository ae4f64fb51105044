"""Evaluation of restored faces: metrics, intervals, tables, reports and the paper's test sets."""
