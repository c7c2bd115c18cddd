// The lab as a child process: its status page's address, what it says, and faults typed to it.
import { spawn } from "node:child_process";

export class Lab {
  said = "";

  static async start(binary, flags) {
    const lab = new Lab();
    lab.child = spawn(binary, ["lab", "--serve", "--listen", "127.0.0.1:0", ...flags]);
    for (const stream of [lab.child.stdout, lab.child.stderr]) stream.on("data", (text) => (lab.said += text));
    lab.child.on("error", (error) => (lab.said += error.message));
    lab.ended = new Promise((end) => lab.child.on("exit", end));
    lab.page = await until("the lab says where its status page is", () => {
      if (lab.child.exitCode !== null) throw new Error("the lab has ended");
      return lab.said.match(/status page is (http:\S+\/) /)?.[1];
    }).catch((error) => { throw new Error(`${error.message}\n${lab.said}`); });
    return lab;
  }

  type(...orders) {
    this.child.stdin.write(orders.map((order) => `${order}\n`).join(""));
  }

  async stop() {
    if (this.child.exitCode === null) this.child.kill("SIGTERM");
    await this.ended;
  }
}

// Asks again until the answer is yes; the error names what was waited for.
export async function until(what, ask, seconds = 40) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > deadline) throw new Error(`not within ${seconds} s: ${what}`);
    await new Promise((again) => setTimeout(again, 50));
  }
}
