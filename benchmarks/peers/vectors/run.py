"""The peers: hnswlib, usearch, faiss and scalable-vs, each with one thread and its usual parameters.

scalable-vs runs over float32 only: its LVQ ends the process on processors of other makers.
"""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from benchmarks.common import store_bytes
from benchmarks.peers.vectors.loop import Floats, K, leave_out, main

EF = (16, 32, 48, 64, 96, 128, 192, 256, 512)


class Hnswlib:
    sweep = EF

    def build(self, vectors: Floats, folder: Path) -> None:
        import hnswlib

        self.index = hnswlib.Index(space="ip", dim=vectors.shape[1])
        self.index.init_index(max_elements=len(vectors), M=16, ef_construction=200)
        self.index.set_num_threads(1)
        self.index.add_items(vectors)
        self.index.save_index(str(folder / "index"))
        self.size = (folder / "index").stat().st_size

    def sizes(self) -> tuple[int, int]:
        return self.size, 0

    def search(self, query: Floats, parameter: float | None) -> NDArray[np.int64]:
        self.index.set_ef(parameter)
        return self.index.knn_query(query, k=K)[0][0].astype(np.int64)

    def filtered(self, query: Floats, allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
        self.index.set_ef(EF[-1])
        try:
            return self.index.knn_query(query, k=K, filter=lambda each: bool(allowed[each]))[0][0].astype(np.int64)
        except RuntimeError:  # it found fewer than ten, and then gives none
            return np.zeros(0, np.int64)


class Usearch:
    sweep = EF
    dtype = "f32"

    def build(self, vectors: Floats, _folder: Path) -> None:
        from usearch.index import Index

        self.index = Index(
            ndim=vectors.shape[1],
            metric="cos",
            dtype=self.dtype,
            connectivity=16,
            expansion_add=128,
            expansion_search=64,
        )
        self.index.add(np.arange(len(vectors)), vectors, threads=1)

    def sizes(self) -> tuple[int, int]:
        return self.index.serialized_length, 0

    def search(self, query: Floats, parameter: float | None) -> NDArray[np.int64]:
        self.index.expansion_search = parameter
        return self.index.search(query, K, threads=1).keys.astype(np.int64)

    def filtered(self, query: Floats, allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
        self.index.expansion_search = EF[-1]
        return leave_out(lambda count: self.index.search(query, count, threads=1).keys.astype(np.int64), allowed)


class UsearchHalf(Usearch):
    dtype = "f16"


class UsearchByte(Usearch):
    dtype = "i8"


class Faiss:
    sweep = (None,)

    def build(self, vectors: Floats, _folder: Path) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        self.index = self.make(faiss, vectors.shape[1])
        self.index.train(vectors)
        self.index.add(vectors)
        self.size = len(faiss.serialize_index(self.index))

    def make(self, faiss: ModuleType, dim: int) -> object:
        return faiss.IndexFlatIP(dim)

    def sizes(self) -> tuple[int, int]:
        return self.size, 0

    def search(self, query: Floats, _parameter: float | None) -> NDArray[np.int64]:
        return self.index.search(query[None], K)[1][0]


class FaissByte(Faiss):
    def make(self, faiss: ModuleType, dim: int) -> object:
        return faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)


class FaissHnsw(Faiss):
    sweep = EF

    def make(self, faiss: ModuleType, dim: int) -> object:
        index = faiss.IndexHNSWFlat(dim, 16, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 200
        return index

    def search(self, query: Floats, parameter: float | None) -> NDArray[np.int64]:
        self.index.hnsw.efSearch = parameter
        return super().search(query, parameter)

    def filtered(self, query: Floats, allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
        import faiss

        chosen = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        parameters = faiss.SearchParametersHNSW(sel=chosen, efSearch=EF[-1])
        return self.index.search(query[None], K, params=parameters)[1][0]


class Svs:
    sweep = (10, 20, 30, 40, 60, 80, 120, 160, 320)

    def build(self, vectors: Floats, folder: Path) -> None:
        import svs

        parameters = svs.VamanaBuildParameters(graph_max_degree=32, window_size=64, alpha=0.95)
        self.index = svs.Vamana.build(parameters, vectors, svs.DistanceType.MIP, num_threads=1)
        self.index.save(str(folder / "config"), str(folder / "graph"), str(folder / "data"))
        self.size = store_bytes(folder)

    def sizes(self) -> tuple[int, int]:
        return self.size, 0

    def search(self, query: Floats, parameter: float | None) -> NDArray[np.int64]:
        self.index.search_window_size = parameter
        return self.index.search(query[None], K)[0][0].astype(np.int64)

    def filtered(self, query: Floats, allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
        self.index.search_window_size = self.sweep[-1]
        return leave_out(lambda count: self.index.search(query[None], count)[0][0].astype(np.int64), allowed)


if __name__ == "__main__":
    main(
        {
            "hnswlib": Hnswlib,
            "usearch-f32": Usearch,
            "usearch-f16": UsearchHalf,
            "usearch-i8": UsearchByte,
            "faiss-flat": Faiss,
            "faiss-sq8": FaissByte,
            "faiss-hnsw": FaissHnsw,
            "svs-vamana": Svs,
        }
    )
