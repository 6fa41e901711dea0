"""Where the encoders run and in which precision."""

import os

import torch

from spp_scl.errors import UserError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device() -> torch.device:
    """CUDA when there is one, else the CPU; on either, only operations that repeat to the bit."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS does not repeat
    # As `use_deterministic_algorithms`, which would also load the compiler, for more than a second.
    torch.set_deterministic_debug_mode("error")
    # Nothing here reads memory that it has not written, and filling it takes a quarter of a training step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # float32 means float32: cuDNN would otherwise round its inputs to 10 bits.
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_precision(device: torch.device, precision: str, key: str = "precision") -> str:
    """Resolve `auto`: bf16 where the processor computes in it, else fp16 on CUDA and fp32 on a CPU.

    Args:
        device: that computes.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        key: of the parameter, for the message.

    Raises:
        UserError: fp16 is asked for on a CPU, which has no fast arithmetic for it.
    """
    if precision == "fp16" and device.type == "cpu":
        raise UserError(f"{key}: fp16 needs a GPU; on a CPU choose auto, bf16 or fp32")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if has_bf16() else "fp32"


def has_bf16() -> bool:
    """Whether the CPU computes in bfloat16: it has the instructions, and oneDNN and torch use them.

    Without them oneDNN emulates bfloat16, in 2.5 times the time of float32.
    """
    # torch has no public name for these. The products and convolutions are oneDNN's, which looks at the
    # processor and at its own variable; torch's attention fails beside them where ATEN_CPU_CAPABILITY keeps
    # torch below AVX-512 ("pack_vnni2 is only supported when avx512 is supported").
    processor = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    torch_follows = torch.backends.cpu.get_cpu_capability() == "AVX512"
    onednn_follows = onednn_takes_bf16() and _onednn_limit() not in ("AVX512_CORE", "AVX512_CORE_VNNI")
    return processor and torch_follows and onednn_follows


def onednn_takes_bf16() -> bool:
    """Whether oneDNN's operators take bfloat16 on this CPU at all, fast or slow."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _onednn_limit() -> str:
    # oneDNN's variable, and its older name; oneDNN has no question that torch passes on.
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", ""))
    return limit.upper()


def describe_hardware(device: torch.device) -> str:
    """Whose arithmetic it is, as far as it may show in the last digits."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    parts = ["CPU", torch.backends.cpu.get_cpu_capability()]
    if torch.cpu._is_avx512_bf16_supported():
        parts.append("AVX512-BF16")
    if torch.cpu._is_amx_tile_supported():
        parts.append("AMX")
    if limit := _onednn_limit():
        parts.append(f"oneDNN up to {limit}")
    return ", ".join(parts)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which an encoder runs."""
    return torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32")
