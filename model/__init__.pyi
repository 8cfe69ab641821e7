from ptewalk.model.api.answers import Fault as Fault
from ptewalk.model.api.machine import Machine as Machine
from ptewalk.model.api.task import Task as Task
from ptewalk.model.api.words import PAGE as PAGE
from ptewalk.model.errors import Errno as Errno
from ptewalk.model.profiles import PROFILES as PROFILES

__all__ = ["PAGE", "PROFILES", "Errno", "Fault", "Machine", "Task"]
