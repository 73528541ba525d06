"""From gridded reanalysis to a store of labelled patches."""
