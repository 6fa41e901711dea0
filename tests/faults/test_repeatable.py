"""Every process computes the same bytes: also its first call, in which libraries set themselves up."""

import subprocess
import sys

from tests.pipeline import ROOT

PROCESSES = 16

FIRST_CALL = """
import hashlib
import torch
from spp_scl.methods.shared.bilstm import bilstm
from spp_scl.batches.packing import pack

torch.set_num_threads(2)
torch.manual_seed(0)
lstm, lengths = torch.nn.LSTM(32, 64, bias=False, bidirectional=True), torch.full((64,), 40)
words = torch.randn(int(lengths.sum()), 32)
states = bilstm(lstm, words, pack(lengths, torch.device("cpu"))).detach()
print(hashlib.sha256(states.numpy().tobytes()).hexdigest())
"""


def test_the_first_call_of_a_process_gives_what_every_call_gives():
    command = [sys.executable, "-c", FIRST_CALL]
    options = {"cwd": ROOT, "capture_output": True, "text": True, "check": True}
    runs = [subprocess.run(command, **options).stdout for _ in range(PROCESSES)]
    assert len(set(runs)) == 1
