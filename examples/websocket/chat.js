"use strict";
const $ = (id) => document.getElementById(id);
const form = $("say");
const LINES_MAX = 500;
let room = roomOf(location.hash) || "lobby";
let rooms = [];
let socket;
let wait = 500;

form.name.value = sessionStorage.getItem("name") || "guest" + Math.floor(Math.random() * 1000);

function roomOf(hash) {
  try {
    return decodeURIComponent(hash.slice(1));
  } catch {
    return ""; // a % that stands for nothing
  }
}

function item(text) {
  const element = document.createElement("li");
  element.textContent = text;
  return element;
}

function addLine(line) {
  const element = document.createElement("li");
  const time = document.createElement("time");
  time.textContent = new Date(line.at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const name = document.createElement("b");
  name.textContent = line.name;
  element.append(time, name, line.text);
  $("lines").append(element);
  while ($("lines").children.length > LINES_MAX) $("lines").firstChild.remove();
  element.scrollIntoView();
}

function showRooms() {
  $("rooms").replaceChildren(...rooms.map(([name, count]) => {
    const button = document.createElement("button");
    button.textContent = count ? `${name} (${count})` : name;
    button.setAttribute("aria-current", name === room);
    button.onclick = () => { room = name; join(); };
    const element = document.createElement("li");
    element.append(button);
    return element;
  }), (() => {
    const button = document.createElement("button");
    button.textContent = "+ new room";
    button.onclick = () => {
      const name = prompt("Name of the room");
      if (name) { room = name; join(); }
    };
    const element = document.createElement("li");
    element.append(button);
    return element;
  })());
}

function send(wish) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(wish));
}

function join() {
  sessionStorage.setItem("name", form.name.value);
  location.hash = encodeURIComponent(room);
  send({ type: "join", room, name: form.name.value });
}

const news = {
  room(data) {
    room = data.room;
    rooms = data.rooms;
    form.name.value = data.name;
    $("lines").replaceChildren();
    data.lines.forEach(addLine);
    showRooms();
  },
  members(data) {
    $("count").textContent = data.members.length;
    $("members").replaceChildren(...data.members.map(item));
    rooms = rooms.map(([name, count]) => [name, name === room ? data.members.length : count]);
    showRooms();
  },
  line: addLine,
  error(data) { $("status").textContent = data.text; },
};

function connect() {
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
  socket.onopen = () => { $("status").textContent = "connected"; wait = 500; join(); };
  socket.onmessage = (event) => {
    const data = JSON.parse(event.data);
    news[data.type](data);
  };
  socket.onclose = (event) => {
    $("status").textContent = `disconnected (${event.code}), trying again`;
    setTimeout(connect, wait);
    wait = Math.min(wait * 2, 10000);
  };
}

form.onsubmit = (event) => {
  event.preventDefault();
  if (form.text.value.trim()) send({ type: "say", text: form.text.value });
  form.text.value = "";
};
form.name.onchange = join;
// A page that the browser keeps for its back button is gone for the others; when it is shown
// again, `onclose` connects.
window.onpagehide = () => socket.close();
connect();
