"""Seeds of fuzz_model: a very small GGUF file of each family, and the config.json of each golden directory. Needs what
tests/golden/logits/make.py needs; run once, results are committed.

    python3 tests/fuzz/make_models.py
"""
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "golden" / "logits"))
import make as logits  # noqa: E402

FOLDER = HERE / "corpus" / "model"
DIRECTORIES = ("gemma2", "gemma3", "phi3", "olmo2", "granite", "mixtral", "qwen3moe", "smollm3", "yarn", "qwen3")  # as fuzz_model.c


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    logits.HERE = FOLDER
    for name, (cls, config) in logits.FAMILIES.items():
        if config.hidden_size == 32:  # the others differ in nothing that is read
            config.hidden_size, config.intermediate_size, config.num_attention_heads, config.num_key_value_heads = 8, 4, 1, 1
            config.head_dim = 8
            logits.write_gguf(name, cls(config).float().eval())
    for i, name in enumerate(DIRECTORIES):
        config = (HERE.parent / "golden" / "hf" / "models" / name / "config.json").read_text()
        (FOLDER / f"{name}.json").write_text(f"{i}{config}")


if __name__ == "__main__":
    main()
