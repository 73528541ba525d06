"""Weather TDR: finds rare, critical weather incidents in gridded reanalysis."""

__version__ = "0.1.0"
