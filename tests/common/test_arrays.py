import numpy as np
import pytest
import torch

from emsuite.common.arrays import as_tensor, label_tensor, like_input_labels
from emsuite.common.errors import BadInput


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", ">u8"]
)
def test_ids_stay_apart_and_come_back(dtype):
    top = 1 if dtype == "bool" else np.iinfo(dtype).max
    ids = np.array([0, 1, top, top // 2 + 1], dtype)
    tensor = label_tensor(ids)
    assert len(tensor.unique()) == len(np.unique(ids))
    assert tensor[0] == 0
    back = like_input_labels(ids, tensor)
    assert back.dtype == ids.dtype
    assert np.array_equal(back, ids)


def test_unsigned_tensors_come_back_too():
    ids = torch.tensor([0, 2**64 - 1], dtype=torch.uint64)
    assert label_tensor(ids).tolist() == [0, -1]
    assert like_input_labels(ids, label_tensor(ids)).dtype == torch.uint64


def test_writable_arrays_are_not_copied_and_others_are_not_written():
    ids = np.arange(5, dtype=np.uint64)
    assert np.shares_memory(as_tensor(ids).numpy(), ids)
    ids.setflags(write=False)
    assert not np.shares_memory(as_tensor(ids).numpy(), ids)


@pytest.mark.parametrize("labels", [np.zeros(3), torch.zeros(3), torch.zeros(3, dtype=torch.complex64)])
def test_labels_must_be_integers(labels):
    with pytest.raises(BadInput, match=r"labels: .*, expected integers"):
        label_tensor(labels)


def test_other_numbers_pass_as_plain_tensors():
    assert torch.equal(as_tensor(np.array([0.5])), torch.tensor([0.5], dtype=torch.float64))
