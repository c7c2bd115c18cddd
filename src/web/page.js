(() => {
  const PERIOD = 2000;
  const say = document.getElementById("say");
  const verdict = (page) => page.getElementById("verdict").textContent;
  const refresh = async () => {
    if (!document.hidden) await replace();
    setTimeout(refresh, PERIOD);
  };
  const replace = async () => {
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.status);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const focus = document.activeElement && document.activeElement.id;
      const open = new Map([...document.querySelectorAll("details")].map((each) => [each.id, each.open]));
      const news = verdict(page) !== verdict(document);
      document.getElementById("live").replaceWith(page.getElementById("live"));
      document.title = page.title;
      for (const [id, is] of open) { const each = document.getElementById(id); if (each) each.open = is; }
      if (focus) { const each = document.getElementById(focus); if (each) each.focus({ preventScroll: true }); }
      if (news) say.textContent = verdict(document);
      else if (say.dataset.lost) say.textContent = "";
      delete say.dataset.lost;
    } catch {
      say.dataset.lost = "yes";
      say.textContent = "The medic does not answer. This is its last status.";
    }
  };
  setTimeout(refresh, PERIOD);
})();
