"""A second device, played by the CPU: a machine without a GPU finds what would stand on the wrong one."""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

CPU, DEVICE = torch.device("cpu"), torch.device("privateuseone")  # the name that torch keeps for others'
MOVES = "to", "copy_", "__set__", "_has_compatible_shallow_copy_type"  # take from one device to the other


def names(argument, device: torch.device) -> bool:
    """Whether an argument is the device, or its name."""
    return isinstance(argument, (torch.device, str)) and argument in (device, device.type)


class Elsewhere(TorchFunctionMode):
    """While it lasts, a tensor that was made on DEVICE, or moved there, says that it is there, and so does
    whatever is made of it. As on a GPU, an operation takes tensors of one device only, besides single numbers
    and indices from the CPU, and numpy reads nothing that is elsewhere.
    """

    def __init__(self):
        super().__init__()
        self.storages = {}  # of the tensors that are there; kept, so that no address is used twice

    def holds(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self.storages

    def placed(self, value, there: bool, taken: list[int]):
        """A result put where it belongs: by a copy, where it is an argument that is on the other device."""
        if not isinstance(value, torch.Tensor) or not value.numel() or self.holds(value) == there:
            return value
        if not there or value.untyped_storage().data_ptr() in taken:
            value = value.clone()
        if there:
            storage = value.untyped_storage()
            self.storages[storage.data_ptr()] = storage
        return value

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name, values = function.__name__, tree_leaves((args, kwargs))
        if name == "_parse_to":  # Module.to asks what its arguments mean
            return function(*args, **(kwargs or {}))
        tensors = [x for x in values if isinstance(x, torch.Tensor) and x.numel()]
        there = any(map(self.holds, tensors))
        if there and function == torch.Tensor.device.__get__:
            return DEVICE
        if there and name in ("numpy", "__array__"):
            raise TypeError("numpy cannot read a tensor that is elsewhere")
        if there and name not in MOVES:
            indexed = name in ("__getitem__", "__setitem__") and self.holds(args[0])
            indices = list(map(id, tree_leaves(args[1]))) if indexed else []
            for x in tensors:
                if x.ndim and not self.holds(x) and id(x) not in indices:
                    raise RuntimeError(f"{name} of tensors on two devices; on the CPU is {tuple(x.shape)}")
        home = name == "cpu" or any(names(x, CPU) for x in values)
        there = any(names(x, DEVICE) for x in values) or there and not home
        args, kwargs = tree_map(lambda x: CPU if names(x, DEVICE) else x, (args, kwargs))
        taken = [x.untyped_storage().data_ptr() for x in tensors]
        result = function(*args, **(kwargs or {}))
        if name in ("copy_", "__set__"):
            return result
        return tree_map(lambda x: self.placed(x, there, taken), result)
