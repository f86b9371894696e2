"""The images (or regions) most similar to one of them, by the features that ``d3ssl embed`` wrote.

    d3ssl embed timm:resnet50:pretrained photos/ --out features.parquet
    python examples/nearest_neighbours.py features.parquet --query holiday/beach.jpg

Cosine similarity of the features minus their mean, all pairs. For millions of rows give ``features`` to FAISS or a
database with vectors instead.
"""

from __future__ import annotations

import argparse

import numpy as np
import pyarrow.parquet as pq
from sklearn.neighbors import NearestNeighbors

from d3ssl.console import show_table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("file", help="the Parquet file of d3ssl embed")
    parser.add_argument("--query", default=None, help="id of an image; none: the first row")
    parser.add_argument("--k", type=int, default=5, help="neighbours to show")
    options = parser.parse_args()

    table = pq.read_table(options.file)
    dim = table.schema.field("feature").type.list_size
    features = table["feature"].combine_chunks().flatten().to_numpy().reshape(-1, dim).astype(np.float32)
    features -= features.mean(axis=0)
    ids = table["id"].to_pylist()
    row = 0 if options.query is None else ids.index(options.query)

    index = NearestNeighbors(n_neighbors=min(options.k + 1, len(ids)), metric="cosine").fit(features)
    distances, rows = index.kneighbors(features[row : row + 1])
    found = [(n, 1 - d) for n, d in zip(rows[0], distances[0], strict=True) if n != row][: options.k]
    shown = [name for name in ("id", "region", "class_name") if name in table.column_names]
    cells = [[*(str(table[name][int(n)]) for name in shown), f"{similarity:.3f}"] for n, similarity in found]
    show_table(f"most similar to {ids[row]}", [*shown, "similarity"], cells)


if __name__ == "__main__":
    main()
