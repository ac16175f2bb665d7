"use strict";(()=>{var e=(()=>{try{return localStorage.getItem("herald.theme")}catch{return null}})();(e==="light"||e==="dark")&&(document.documentElement.dataset.theme=e);})();
