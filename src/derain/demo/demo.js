const the = (id) => document.getElementById(id);
let picture = null;
let request = new AbortController();
let urls = [];
the("unscripted").remove();

// Which weights: another choice derains the same picture again.
the("weights").addEventListener("change", () => {
  the("about").textContent = the("weights").selectedOptions[0].dataset.about;
  if (picture) derain();
});

// Which picture: chosen, dropped anywhere on the page, or pasted.
the("file").addEventListener("change", () => {
  take(the("file").files);
  the("file").value = "";
});
document.addEventListener("paste", (event) => take(event.clipboardData.files));
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    const leaving = kind === "drop" || (kind === "dragleave" && event.relatedTarget === null);
    document.body.classList.toggle("dragging", !leaving);
    if (kind === "drop") take(event.dataTransfer.files);
  });
}

function take(files) {
  if (files.length === 0) return; // text was pasted, or the choice was cancelled
  if (files.length > 1) {
    complain("One picture at a time, please. For many there is `derain run`.");
    return;
  }
  picture = files[0];
  derain();
}

async function derain() {
  request.abort();
  request = new AbortController();
  const mine = request;
  const file = picture;
  const began = performance.now();
  const seconds = (digits) => ((performance.now() - began) / 1000).toFixed(digits) + " s";
  let doing = "Reading " + file.name;
  const say = () => { the("doing").textContent = doing + " … " + seconds(0); };
  the("error").hidden = true;
  the("progress").hidden = false;
  the("result").classList.add("stale");
  say();
  const clock = setInterval(say, 1000);
  try {
    if (file.size > Number(the("file").dataset.mostBytes)) throw new Problem(the("file").dataset.tooLarge);
    const answer = await send(file, mine.signal, (step) => {
      doing = step.state === "waiting" ? "Waiting for another picture" : "Taking the rain off " + file.name;
      say();
    });
    if (mine === request) await show(file, answer, seconds(1));
  } catch (problem) {
    if (mine !== request) return;
    the("result").hidden = true;
    const reason = problem instanceof Problem ? problem.message : "The connection broke off. Is derain demo still running?";
    complain(file.name + ": " + reason);
  } finally {
    clearInterval(clock);
    if (mine === request) {
      the("progress").hidden = true;
      the("doing").textContent = "";
      the("result").classList.remove("stale");
    }
  }
}

function complain(text) {
  the("error").textContent = text;
  the("error").hidden = false;
}

class Problem extends Error {}

// The response is lines of JSON that say how far the picture is; after the line "done" come the bytes of its parts.
async function send(file, signal, tell) {
  const response = await fetch("/derain?weights=" + the("weights").value, { method: "POST", body: file, signal });
  if (!response.ok) throw new Problem((await response.json()).error);
  const reader = response.body.getReader();
  const chunks = [];
  let held = new Uint8Array();
  let last = null;
  for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
    if (last) {
      chunks.push(chunk.value);
      continue;
    }
    held = joined(held, chunk.value);
    for (let end = held.indexOf(10); end >= 0 && !last; end = held.indexOf(10)) {
      const step = JSON.parse(new TextDecoder().decode(held.subarray(0, end)));
      held = held.subarray(end + 1);
      if (step.state === "done" || step.state === "failed") last = step;
      else tell(step);
    }
  }
  if (last && last.state === "failed") throw new Problem(last.error);
  return { ...last, ...parts(last.parts, new Blob([held, ...chunks])) };
}

function parts(described, whole) {
  const found = {};
  let start = 0;
  for (const [name, type, length] of described) {
    found[name] = whole.slice(start, start + length, type);
    start += length;
  }
  if (whole.size !== start) throw new Error("cut short");
  return found;
}

function joined(first, second) {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

async function show(file, answer, seconds) {
  urls.forEach((url) => URL.revokeObjectURL(url));
  urls = [answer.rainy, answer.derained, answer.file].map((part) => URL.createObjectURL(part));
  const [over, under] = await Promise.all(urls.slice(0, 2).map(loaded));
  over.width = under.width = answer.width;
  over.height = under.height = answer.height;
  const stem = file.name.replace(/\.[^.]*$/, "");
  the("name").textContent = file.name;
  the("size").textContent = answer.width + " × " + answer.height;
  the("download").href = urls[2];
  the("download").download = stem + "_derained" + answer.suffix;
  the("facts").textContent = the("weights").selectedOptions[0].textContent + ", " + seconds;
  the("result").hidden = false;
  compare(the("result").querySelector(".slider"), over, under);
}

async function loaded(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}
