"""How the web server deals with its connections: nobody who is slow holds a thread that a page needs.

`worker.Worker` is gunicorn's threaded worker with three changes (docs/decisions/0015):

1. A connection waits in the worker's event loop, not in a thread, until the whole head of its request is there (and a
   small body). What does not come is closed after a while.
2. Requests run in one of three pools of threads by what they ask for (`heads.py`).
3. What an answer leaves to send, a file above all, is sent by a few threads with event loops of their own
   (`sender.py`), as fast as each client takes it.

`channel.Channel` is the socket as gunicorn's own code sees it.
"""
