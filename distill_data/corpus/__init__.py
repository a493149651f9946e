"""Corpora: named series of immutable versions, assembled from trace stores.

Reading order: manifest, versions, digest, provenance, decide, rows, write, statistics, card, assemble; then pages,
list_column, data_file, read, held_out and check. A version is the folder `<root>/corpora/<name>/vN/`; its manifest
makes it exist.
"""
