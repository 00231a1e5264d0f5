"""Every block of the documents is held against what it is about, and every command in them is run.

Pages come in by themselves: whatever lies under version control, or will, and ends in ``.md``. What their writers do:

- commands stand in blocks of ``sh`` (no prompt, no output) or ``console`` (``$ command``, then what it prints);
- in ``console`` an ``…`` stands for anything on its line; digests, times and durations may be others;
- registries are ``ghcr.io/…`` and ``corp/…``: what the commands name of them is there. `world` has the files;
- ``<!-- run: NAME -->`` above a block says that a test of its own runs it, which then names it;
- programs that a test machine has no use for (``kubectl``, ``systemctl``) are in `apart`, with what else checks them;
- ``yaml`` is settings, values of the chart, or Kubernetes objects, and valid; ``json`` and ``toml`` parse.
"""
