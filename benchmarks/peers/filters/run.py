"""Peers with a filter: python run.py NAME FOLDER, over what `scale.py` wrote there; prints recall@10 and p50 as JSON.

One thread each. hnswlib and faiss walk their graph and pass over what the filter forbids; usearch's Python has no
filter, so it is asked for more and what is forbidden is dropped; faiss-flat and LanceDB (no index) read all allowed.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LANCE_CPU_THREADS", "RAYON_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402  # after the numbers of threads

K, EF, DRAWS = 10, 128, 2000
Search = Callable[[Any, float], Any]


def hnswlib_search(vectors: Any, draws: Any) -> Search:  # noqa: ANN401
    import hnswlib

    index = hnswlib.Index(space="ip", dim=vectors.shape[1])
    index.init_index(max_elements=len(vectors), M=16, ef_construction=200)
    index.set_num_threads(1)
    index.add_items(vectors)
    index.set_ef(EF)

    def search(query: Any, share: float) -> Any:  # noqa: ANN401
        allowed = (draws < DRAWS * share).tolist()
        try:
            return index.knn_query(query, k=K, filter=allowed.__getitem__)[0][0]
        except RuntimeError:  # fewer than K were met
            return []

    return search


def usearch_search(vectors: Any, draws: Any) -> Search:  # noqa: ANN401
    from usearch.index import Index

    index = Index(ndim=vectors.shape[1], metric="cos", dtype="f32", connectivity=16, expansion_add=128)
    index.add(np.arange(len(vectors)), vectors, threads=1)

    def search(query: Any, share: float) -> Any:  # noqa: ANN401
        more = min(int(2 * K / share), 2000)
        index.expansion_search = max(EF, more)
        keys = index.search(query, more, threads=1).keys.astype(np.int64)
        return keys[draws[keys] < DRAWS * share][:K]

    return search


def faiss_search(vectors: Any, draws: Any, *, graph: bool) -> Search:  # noqa: ANN401
    import faiss

    faiss.omp_set_num_threads(1)
    if graph:
        index = faiss.IndexHNSWFlat(vectors.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 200
    else:
        index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)

    def search(query: Any, share: float) -> Any:  # noqa: ANN401
        chosen = faiss.IDSelectorBitmap(np.packbits(draws < DRAWS * share, bitorder="little"))
        given = faiss.SearchParametersHNSW(sel=chosen, efSearch=EF) if graph else faiss.SearchParameters(sel=chosen)
        return index.search(query[None], K, params=given)[1][0]

    return search


def lancedb_search(vectors: Any, draws: Any) -> Search:  # noqa: ANN401
    import lancedb
    import pyarrow as pa

    folder = tempfile.mkdtemp(prefix="peers-lancedb-")
    database = lancedb.connect(folder)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    rows = pa.table({"n": np.arange(len(vectors)), "draw": draws, "vector": flat})
    opened = database.create_table("rows", rows)
    opened.create_scalar_index("draw")

    def search(query: Any, share: float) -> Any:  # noqa: ANN401
        asked = opened.search(query).distance_type("dot").where(f"draw < {int(DRAWS * share)}", prefilter=True)
        return [row["n"] for row in asked.limit(K).select(["n"]).to_list()]

    return search


MAKERS: dict[str, Callable[[Any, Any], Search]] = {
    "hnswlib": hnswlib_search,
    "usearch": usearch_search,
    "faiss-flat": lambda vectors, draws: faiss_search(vectors, draws, graph=False),
    "faiss-hnsw": lambda vectors, draws: faiss_search(vectors, draws, graph=True),
    "lancedb": lancedb_search,
}


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    vectors, draws, queries = (np.load(folder / f"{part}.npy") for part in ("vectors", "draws", "queries"))
    nearest = json.loads((folder / "nearest.json").read_text())
    search, found = MAKERS[name](vectors, draws), {}
    for share, exact in nearest.items():
        took, spent, shares = [], [], []
        for q in range(-3, len(queries)):  # three to warm up
            began, worked = time.perf_counter(), time.process_time()
            got = search(queries[q], float(share))
            if q >= 0:
                took.append(1000 * (time.perf_counter() - began))
                spent.append(1000 * (time.process_time() - worked))
                shares.append(len(set(exact[q]) & {int(n) for n in got}) / max(len(exact[q]), 1))
        found[share] = {"recall@10": sum(shares) / len(shares), "p50_ms": median(took), "cpu_p50_ms": median(spent)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
