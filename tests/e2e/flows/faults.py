import os
import sys

from flowkiln import FlowSpec, Parameter, step


class Faults(FlowSpec):
    kind = Parameter("kind", default="none")

    @step
    def start(self):
        self.before = 1
        getattr(self, "do_" + self.kind.replace("-", "_"))()
        self.next(self.end)

    def do_none(self):
        pass

    def do_raise(self):
        message = "no such luck"
        raise ValueError(message)

    def do_exit_zero(self):
        os._exit(0)

    def do_exit_three(self):
        os._exit(3)

    def do_sys_exit(self):
        sys.exit(4)

    def do_segfault(self):
        import ctypes

        ctypes.string_at(0)

    def do_kill(self):
        os.kill(os.getpid(), 9)

    def do_fork(self):
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        os.waitpid(pid, 0)

    def do_threads(self):
        import threading

        def work():
            self.from_thread = "done"

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    def do_print(self):
        line = "x" * 1023 + "\n"
        for _ in range(100 * 1024):
            sys.stdout.write(line)

    def do_close(self):
        os.close(1)
        sys.stdout = None

    def do_unpicklable(self):
        import threading

        self.model = {"layers": [1, 2, {"lock": threading.Lock()}]}

    @step
    def end(self):
        print("reached the end", self.before)


if __name__ == "__main__":
    Faults()
