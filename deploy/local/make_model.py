"""Make a small model that vLLM serves; run by make-model with the Python of vLLM's environment.

make_model.py tiny OUT
make_model.py smollm2 OUT FILE.gguf
"""

# These packages are in vLLM's environment, not in the project's.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import json
import pydoc_data.topics
import re
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# llama.cpp's names of a Llama's tensors, and those of transformers
NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def tiny(out: Path) -> None:
    """A random Llama of two layers; its tokenizer is trained on Python's own help texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415 - slow

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(pydoc_data.topics.topics.values(), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<|endoftext|>",  # noqa: S106
        eos_token="<|im_end|>",  # noqa: S106
        pad_token="<|endoftext|>",  # noqa: S106
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def smollm2(out: Path, source: Path) -> None:
    """The GGUF's quantised weights as bf16 safetensors, with its tokenizer."""
    import gguf  # noqa: PLC0415 - only make-model smollm2 brings it
    from safetensors.torch import save_file  # noqa: PLC0415

    reader = gguf.GGUFReader(source)

    def field(key: str) -> Any:
        entry = reader.fields[key]
        return entry.parts[entry.data[0]][0].item()

    heads = field("llama.attention.head_count")
    kv_heads = field("llama.attention.head_count_kv")
    state: dict[str, torch.Tensor] = {}
    for tensor in reader.tensors:
        match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.weight", tensor.name)
        if not match or match[2] not in NAMES:
            print("left out:", tensor.name)
            continue
        layer, name = match.groups()
        weight = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
        if name in ("attn_q", "attn_k"):  # llama.cpp permutes these; undo it
            n = heads if name == "attn_q" else kv_heads
            half = weight.shape[0] // n // 2
            weight = weight.reshape(n, half, 2, -1).swapaxes(1, 2).reshape(weight.shape)
        prefix = f"model.layers.{layer}." if layer else ""
        state[f"{prefix}{NAMES[name]}.weight"] = weight.to(torch.bfloat16).contiguous()

    LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=state["model.embed_tokens.weight"].shape[0],
        hidden_size=field("llama.embedding_length"),
        intermediate_size=field("llama.feed_forward_length"),
        num_hidden_layers=field("llama.block_count"),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=field("llama.context_length"),
        rms_norm_eps=field("llama.attention.layer_norm_rms_epsilon"),
        rope_theta=field("llama.rope.freq_base"),
        tie_word_embeddings="lm_head.weight" not in state,
        dtype="bfloat16",
        bos_token_id=field("tokenizer.ggml.bos_token_id"),
        eos_token_id=field("tokenizer.ggml.eos_token_id"),
    ).save_pretrained(out)
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    generation = {
        "bos_token_id": field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": field("tokenizer.ggml.eos_token_id"),
    }
    (out / "generation_config.json").write_text(json.dumps(generation))
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    tokenizer.save_pretrained(out)


def check(out: Path) -> None:
    """What vLLM will need: a tokenizer with a chat template that gives back what it was given."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(out)
    if not tokenizer.chat_template:
        sys.exit("the tokenizer has no chat template")
    text = "The capital of France is Paris."
    if tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) != text:
        sys.exit("the tokenizer does not give back the text that it was given")
    for name in ("config.json", "model.safetensors"):
        if not (out / name).stat().st_size:
            sys.exit(f"{name} is empty")


def main(arguments: list[str]) -> None:
    """Make it and check it."""
    kind, out = arguments[0], Path(arguments[1])
    out.mkdir(parents=True)
    if kind == "tiny":
        tiny(out)
    else:
        smollm2(out, Path(arguments[2]))
    check(out)


main(sys.argv[1:])
