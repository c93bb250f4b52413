// Once: npm install @msgpack/msgpack        Then: node node.mjs [PORT]
import { randomUUID } from "node:crypto";
import net from "node:net";
import { decodeMultiStream, encode } from "@msgpack/msgpack";

const socket = net.connect(process.argv[2] ?? 7420, "127.0.0.1"), waiting = new Map();
let msgid = 0;
const call = (method, params = {}) => new Promise((resolve, reject) => {
  msgid = (msgid % 0xffffffff) + 1;
  waiting.set(msgid, { resolve, reject });
  socket.write(encode([0, msgid, method, [params]]), (problem) => problem && reject(problem));
});
async function read() {
  for await (const [kind, id, error, result] of decodeMultiStream(socket)) {
    if (kind === 2) continue; // a notification: `id` is its method, `error` its parameters
    if (!waiting.has(id)) throw error; // msgid 0: why the connection is about to be closed
    error ? waiting.get(id).reject(error) : waiting.get(id).resolve(result);
    waiting.delete(id);
  }
  throw { code: "closed", message: "the broker closed the connection" };
}
read().catch((problem) => waiting.forEach(({ reject }) => reject(problem)));

const agent = { type: "worker", instance: "node" }, queue = { type: "jobs", instance: "node" };
const { heartbeat_interval } = await call("register", { agent });
const beat = () => socket.write(encode([2, "heartbeat", [{ agent }]]));
const heart = setInterval(beat, 1000 * heartbeat_interval);

const message = { message_id: randomUUID(), message_type: "request", payload: { text: "hello" } };
console.log("delivered:", (await call("send", { sender: agent, recipient: queue, message })).delivered);
const got = await call("receive", { agent: queue, wait: 5, visibility_timeout: 30 });
console.log("received:", got.queue_message.message.payload.text);
console.log("acknowledged:", await call("ack", { agent: queue, token: got.token }));
await call("receive", {}).catch((error) => console.log(`${error.code}: ${error.message}`));

clearInterval(heart);
await call("deregister", { agent });
socket.end();
