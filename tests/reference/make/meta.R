# Meta-analyses by metafor: writes meta.json beside this folder.
#     Rscript tests/reference/make/meta.R
suppressPackageStartupMessages({library(metafor); library(jsonlite)})
here <- dirname(sub("--file=", "", grep("--file=", commandArgs(FALSE), value = TRUE)))
old <- fromJSON(file.path(here, "..", "meta.json"), simplifyVector = FALSE)
tight <- list(threshold = 1e-12, maxiter = 1000)
for (name in names(old)) {
  m <- old[[name]]
  d <- read.csv(gzfile(file.path(here, "..", "data", paste0(m$data, ".csv.gz"))))
  fixed <- as.formula(gsub(" \\+ \\(1 \\| [a-z/]+\\)", "", m$formula)); mods <- fixed[-2]
  how <- if (m$reml) "REML" else "ML"
  if (m$data == "dat_bcg") {
    fit <- rma(yi, vi, mods = mods, data = d, method = how, control = tight)
    kh <- rma(yi, vi, mods = mods, data = d, method = how, test = "knha", control = tight)
    m$knapp_hartung <- list(std_errors = kh$se, df = kh$ddf[1], p_values = unname(kh$pval))
    m$I2 <- fit$I2; m$H2 <- fit$H2; m$variances <- fit$tau2
    if (fit$p == 1) { q <- predict(fit); m$prediction <- c(q$pi.lb, q$pi.ub) }
  } else {
    fit <- rma.mv(yi, vi, mods = mods, random = ~ 1 | district / school, data = d, method = how,
                  control = list(optimizer = "nlminb", rel.tol = 1e-10))
    m$variances <- fit$sigma2
  }
  X <- model.matrix(mods, d)
  m$log_likelihood <- as.numeric(logLik(fit))
  m$half_log_det <- if (m$reml) as.numeric(determinant(crossprod(X))$modulus) / 2 else 0
  m$coefficients <- unname(fit$beta[, 1]); m$std_errors <- fit$se
  m$Q <- c(fit$QE, fit$k - fit$p, fit$QEp)
  old[[name]] <- m
}
write(toJSON(old, digits = 15, auto_unbox = TRUE, pretty = TRUE), file.path(Sys.getenv("REFERENCE_OUT", file.path(here, "..")), "meta.json"))
