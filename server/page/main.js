// The page, before there is one: it says that the server is there.

document.getElementById("page").textContent = "rust-ota";
