// Pages that are opened as files may start no worker, so the one that searches works in a frame.
class FrameWorker extends EventTarget {
  constructor(url) {
    super();
    const frame = document.body.appendChild(Object.assign(document.createElement("iframe"), { hidden: true }));
    this.inside = frame.contentWindow;
    this.inside.document.open();
    this.ready = new Promise((resolve) => (this.inside.onload = resolve));
    this.inside.document.write(
      `<script>postMessage = parent.postMessage.bind(parent)</script><script src="${url}"></script>`,
    );
    this.inside.document.close();
    addEventListener("message", ({ source, data }) => {
      if (source === this.inside) this.dispatchEvent(new MessageEvent("message", { data }));
    });
  }

  postMessage(data) {
    this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })));
  }
}

if (location.protocol === "file:") window.IFrameWorker = window.Worker = FrameWorker;
