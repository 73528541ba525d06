"""Figures from data already computed. Each function returns a matplotlib figure."""
