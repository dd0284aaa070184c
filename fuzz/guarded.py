"""Memory that ends where nothing may be read: who reads beyond the end ends with SIGSEGV."""

import ctypes
import mmap

_PROT_NONE = 0
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Guarded:
    """Room for ``size`` bytes, in whole pages, and a page behind it that cannot be read."""

    def __init__(self, size: int) -> None:
        self._size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = mmap.mmap(-1, self._size + mmap.PAGESIZE)
        start = ctypes.addressof(ctypes.c_ubyte.from_buffer(self._memory))
        if _libc.mprotect(start + self._size, mmap.PAGESIZE, _PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")
        self._view = memoryview(self._memory)

    def put(self, data: bytes) -> memoryview:
        """Return the data where their last byte is the last that can be read."""
        view = self._view[self._size - len(data) : self._size]
        view[:] = data
        return view
