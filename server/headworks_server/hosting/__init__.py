"""The models of a process and the engines they run on: made by the composition root, used by rpc through `core`.

`Host` is what the rest knows; `CpuHost` serves models from files on the machine's CPU lanes, under a budget of bytes,
and `StandInHost` one model that there is no file of.
"""

from headworks_server.hosting.cpu import CpuHost
from headworks_server.hosting.host import Host, HostListener
from headworks_server.hosting.standin import StandInHost

__all__ = ["CpuHost", "Host", "HostListener", "StandInHost"]
