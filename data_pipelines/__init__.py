"""From gridded reanalysis to labelled patches: fields, incidents, labels, patches, splits, store."""
