"""Launch lines as public recipes give them (vLLM's recipes, its documentation, model cards), word for word."""

from __future__ import annotations

LINES = {
    "Qwen3, tensor parallel, short and long options": (
        "vllm serve Qwen/Qwen3-235B-A22B --trust-remote-code -tp 4 --distributed-executor-backend mp "
        "--max-num-batched-tokens 32768 --max-model-len 32768 --no-enable-prefix-caching --gpu-memory-utilization 0.8"
    ),
    "Qwen3-Next, speculative decoding": (
        "vllm serve Qwen/Qwen3-Next-80B-A3B-Instruct --tokenizer-mode auto --gpu-memory-utilization 0.8 "
        """--speculative-config '{"method": "qwen3_next_mtp", "num_speculative_tokens": 2}' """
        "--tensor-parallel-size 4 --no-enable-chunked-prefill"
    ),
    "Qwen3-Coder, data parallel, tools, a variable": (
        "VLLM_USE_DEEP_GEMM=1 vllm serve Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8 --max-model-len 131072 "
        "--enable-expert-parallel --data-parallel-size 8 --enable-auto-tool-choice --tool-call-parser qwen3_coder"
    ),
    "Qwen3-VL, a dotted option": (
        "vllm serve Qwen/Qwen3-VL-235B-A22B-Instruct-FP8 --tensor-parallel-size 4 --limit-mm-per-prompt.video 0 "
        "--async-scheduling --gpu-memory-utilization 0.95 --max-num-seqs 128"
    ),
    "Qwen3-VL, an option cut short": (
        'vllm serve Qwen/Qwen3-VL-235B-A22B-Instruct-FP8 --tensor-parallel 4 --mm-encoder-tp-mode "data"'
    ),
    "Qwen3.5, data parallel, reasoning": (
        "vllm serve Qwen/Qwen3.5-397B-A17B-FP8 -dp 8 --enable-expert-parallel --language-model-only "
        "--reasoning-parser qwen3 --enable-prefix-caching"
    ),
    "Qwen2.5, a longer context by JSON in JSON": (
        "vllm serve Qwen/Qwen2.5-7B-Instruct --hf-overrides "
        """'{"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}}' """
        "--max-model-len 131072"
    ),
    "DeepSeek-V3.2, tools and reasoning": (
        "vllm serve deepseek-ai/DeepSeek-V3.2 --tensor-parallel-size 8 --tokenizer-mode deepseek_v32 "
        "--tool-call-parser deepseek_v32 --enable-auto-tool-choice --reasoning-parser deepseek_v3"
    ),
    "DeepSeek-V3.1, a name of its own": (
        "vllm serve deepseek-ai/DeepSeek-V3.1 --enable-expert-parallel --tensor-parallel-size 8 "
        "--served-model-name ds31"
    ),
    "DeepSeek-R1, where it listens, several names": (
        "vllm serve /root/commonData/DeepSeek-R1 --host 0.0.0.0 --port 8000 --reasoning-parser deepseek_r1 "
        "--tensor-parallel-size 8 --load-format auto --trust-remote-code "
        "--served-model-name deepseek-ai/DeepSeek-R1 deepseek-r1"
    ),
    "DeepSeek-OCR, underscores, a processor": (
        "vllm serve deepseek-ai/DeepSeek-OCR "
        "--logits_processors vllm.model_executor.models.deepseek_ocr:NGramPerReqLogitsProcessor "
        "--no-enable-prefix-caching --mm-processor-cache-gb 0"
    ),
    "Llama 3.3, arguments from a file": (
        "vllm serve nvidia/Llama-3.3-70B-Instruct-FP8 --config Llama3.3_Hopper.yaml --tensor-parallel-size 1"
    ),
    "Llama 3.2, LoRA, two ways": (
        "vllm serve meta-llama/Llama-3.2-3B-Instruct --enable-lora --lora-modules sql-lora=/adapters/sql "
        """'{"name": "spider", "path": "jeeejeee/llama32-3b-text2sql-spider", "base_model_name": "llama"}' """
        "--max-loras 2 --max-lora-rank 64"
    ),
    "Llama 3.1, quantised, tools, a chat template": (
        "vllm serve meta-llama/Llama-3.1-8B-Instruct --quantization fp8 --kv-cache-dtype fp8 --enable-auto-tool-choice "
        "--tool-call-parser llama3_json --chat-template examples/tool_chat_template_llama3.1_json.jinja"
    ),
    "Gemma 4, all at once": (
        "vllm serve google/gemma-4-31B-it --tensor-parallel-size 2 --max-model-len 16384 --gpu-memory-utilization 0.90 "
        "--enable-auto-tool-choice --reasoning-parser gemma4 --tool-call-parser gemma4 "
        "--chat-template examples/tool_chat_template_gemma4.jinja "
        """--limit-mm-per-prompt '{"image": 4, "audio": 1}' --async-scheduling --host 0.0.0.0 --port 8000"""
    ),
    "Gemma 4, a draft model": (
        "vllm serve google/gemma-4-31B-it --tensor-parallel-size 2 --max-model-len 8192 "
        """--speculative-config '{"model": "google/gemma-4-31B-it-assistant", "num_speculative_tokens": 4}'"""
    ),
    "Gemma 4, int8": (
        "vllm serve google/gemma-4-26B-A4B-it --quantization int8_per_channel_weight_only --max-model-len 32768 "
        "--gpu-memory-utilization 0.90"
    ),
    "Mistral Large 3, its own formats": (
        "vllm serve mistralai/Mistral-Large-3-675B-Instruct-2512 --tensor-parallel-size 8 --tokenizer_mode mistral "
        "--config_format mistral --load_format mistral --enable-auto-tool-choice --tool-call-parser mistral"
    ),
}
