"""The words of qpipe as frozen types. Nothing here does any work or imports anything of ours but `records`."""
