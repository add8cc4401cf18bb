"""Counting what makes the host wait for a device, on a machine that has none: the device is torch's ``meta``."""

import traceback
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
_FACTORIES = {torch.tensor, torch.as_tensor, torch.asarray, torch.Tensor.new_tensor}


class BlockingCopies:
    """Counts, inside, the copies from host to device that are not ``non_blocking``; ``seen``: who made each, and where.

    Counted are ``to``, ``copy_`` and moves of any other name, tensors made on the device from Python's numbers, and
    numbers on the host that index a tensor of the device. A scalar of the host in arithmetic is no copy: it goes
    with the kernel's arguments. Reads need no count: a tensor of ``meta`` has no values, so that ``item``, ``bool``,
    ``tolist``, ``nonzero`` and copies to the host raise.
    """

    def __init__(self) -> None:
        self.seen = list[str]()
        self._modes = _Functions(self), _Operations(self)

    def note(self, name: str) -> None:
        frames = traceback.extract_stack()
        place = ([frame for frame in frames if "/contraverse/" in frame.filename] or frames)[-1]
        self.seen.append(f"{name} at {place.filename.rpartition('/contraverse/')[2]}:{place.lineno}")

    def __enter__(self) -> "BlockingCopies":
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*exc)


class _Functions(TorchFunctionMode):
    """Tensors of a device that are made of Python's numbers: below the dispatcher nothing tells them apart."""

    def __init__(self, copies: BlockingCopies) -> None:
        super().__init__()
        self.copies = copies

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in _FACTORIES and out.is_meta and not isinstance(args[0], Tensor):
            self.copies.note(func.__name__)
        if func is torch.Tensor.new_tensor and out.is_meta:
            self.copies.note(func.__name__)
        return out


class _Operations(TorchDispatchMode):
    def __init__(self, copies: BlockingCopies) -> None:
        super().__init__()
        self.copies = copies

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, packet = kwargs or {}, func.overloadpacket
        if packet is aten._to_copy:
            moved = args[0].device.type == "cpu" and torch.device(kwargs.get("device") or "cpu").type == "meta"
            if moved and not kwargs.get("non_blocking"):
                self.copies.note(str(func))
        elif packet in (aten.copy_, aten.copy):
            source, waits = args[1], not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
            if args[0].is_meta and source.device.type == "cpu" and waits:
                self.copies.note(str(func))
        elif packet in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index):
            places = [place for place in args[1] if place is not None]
            if args[0].is_meta and any(place.device.type == "cpu" and place.dim() for place in places):
                self.copies.note(str(func))
        return func(*args, **kwargs)
