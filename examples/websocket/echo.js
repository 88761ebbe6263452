"use strict";
const $ = (id) => document.getElementById(id);
let socket;
let times = [];
let run = null;

function draw() {
  const canvas = $("chart");
  const scale = window.devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * scale;
  canvas.height = canvas.clientHeight * scale;
  const ink = canvas.getContext("2d");
  ink.scale(scale, scale);
  const [width, height, left, bottom] = [canvas.clientWidth, canvas.clientHeight, 50, 20];
  const sorted = [...times].sort((a, b) => a - b);
  const top = Math.max(0.1, (sorted[Math.floor(sorted.length * 0.995)] || 1) * 1.2);
  const y = (time) => (height - bottom) * (1 - Math.min(time, top) / top);
  ink.font = "12px system-ui, sans-serif";
  ink.fillStyle = ink.strokeStyle = getComputedStyle(document.body).color;
  for (let i = 0; i <= 4; i++) {
    const value = (top * i) / 4;
    ink.globalAlpha = 0.8;
    ink.fillText(value.toFixed(2), 6, y(value) + 12);
    ink.globalAlpha = 0.15;
    ink.fillRect(left, y(value), width - left, 1);
  }
  ink.globalAlpha = 0.8;
  ink.fillText("message", width / 2, height - 5);
  ink.globalAlpha = 1;
  ink.fillStyle = "#2f6fed";
  times.forEach((time, i) => ink.fillRect(left + ((width - left - 3) * i) / Math.max(1, run.count - 1), y(time) - 1, 2, 2));
}

function finish() {
  const took = performance.now() - run.started;
  const sorted = [...times].sort((a, b) => a - b);
  const at = (part) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))].toFixed(2);
  const row = document.createElement("tr");
  const name = `${run.count} × ${run.size} B`;
  for (const cell of [name, at(0), at(0.5), at(0.99), at(1), Math.round((run.count * 1000) / took)]) {
    const element = document.createElement("td");
    element.textContent = cell;
    row.append(element);
  }
  $("results").prepend(row);
  $("status").textContent = "done";
  draw();
}

function next() {
  run.sent = performance.now();
  socket.send(run.payload);
}

function start(size, count) {
  times = [];
  run = { size, count, payload: new Uint8Array(size), started: performance.now() };
  $("status").textContent = "measuring";
  next();
}

function connect() {
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws/echo`);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => { $("status").textContent = "connected"; start(128, 200); };
  socket.onmessage = (event) => {
    if (event.data.byteLength !== run.size) throw new Error("an echo of another length");
    times.push(performance.now() - run.sent);
    if (times.length % 50 === 0) draw();
    if (times.length < run.count) next(); else finish();
  };
  socket.onclose = () => { $("status").textContent = "disconnected, trying again"; setTimeout(connect, 1000); };
}

$("run").onsubmit = (event) => {
  event.preventDefault();
  if (socket.readyState === WebSocket.OPEN && times.length === run.count) {
    start(Number(event.target.size.value), Number(event.target.count.value));
  }
};
window.onresize = draw;
connect();
